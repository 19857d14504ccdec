"""What HTTP needs: requests, answers and the upgrade, as values and bytes; without input or output."""
