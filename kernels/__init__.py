"""Operations with several implementations each: a plain reference, torch, and Triton where it pays."""

if __name__ == "kernels":
    # The repository root is on sys.path, so this folder answers to the name of Hugging Face's `kernels` package,
    # which diffusers and transformers import. Give the name back; stay an empty module where it is not installed.
    import sys
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec
    from pathlib import Path

    _root = Path(__file__).resolve().parent.parent
    _spec = PathFinder.find_spec("kernels", [p for p in sys.path if Path(p).resolve() != _root])
    if _spec is not None and _spec.loader is not None:
        sys.modules["kernels"] = module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules["kernels"])
