"""An application on servers of other people; an ASGI server calls the `Application` itself."""
