import inspect

from diptych.core import errors


def test_the_tree_in_the_docstring_is_the_tree():
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(cls, errors.DiptychError)
        assert name in (errors.__doc__ or "")
