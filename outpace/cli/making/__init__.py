"""The work of `outpace generate`: an order becomes files that carry their recipe."""
