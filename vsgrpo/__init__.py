__version__ = "0.2.0"
__all__ = ["ask", "evaluate", "train", "score"]   # from vsgrpo.api, which is imported when one of them is used


def __getattr__(name):
    if name not in __all__: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api
    return getattr(api, name)


def __dir__(): return sorted({*globals(), *__all__})
