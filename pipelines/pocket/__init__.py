"""The pocket pipelines: small trained ones. Whatever is taken from here, all of them are registered."""

from . import recipes as recipes
