from setuptools import Distribution, setup

# An editable install asks for `has_data`, which does not exist, before it copies data files: launch files would be missing.
Distribution.has_data = Distribution.has_data_files
distribution = setup()
# colcon reads the distribution back as Python literals, which a version specifier is not.
distribution.python_requires = distribution.metadata.python_requires = str(distribution.python_requires)
