"""The one thing that pyproject.toml cannot say: a wheel is for the stable ABI only where Python has one.

A free-threaded Python has none so far, and setuptools refuses to make such a wheel there: then not the native part
alone, but all of the package could not be installed. Everything else about it is in pyproject.toml.
"""

import sysconfig

from setuptools import setup

is_free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
setup(options={} if is_free_threaded else {"bdist_wheel": {"py_limited_api": "cp311"}})
