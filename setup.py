from setuptools import Distribution, setup

# Before it copies data files, an editable install asks for `has_data`, which setuptools forgot, and leaves them out.
Distribution.has_data = Distribution.has_data_files
distribution = setup()
# colcon reads the distribution back as Python literals, which a version specifier is not.
distribution.python_requires = distribution.metadata.python_requires = str(distribution.python_requires)
