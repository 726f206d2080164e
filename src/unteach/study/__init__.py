"""A study: all arms with all seeds, each a run of its own, and one comparison of them."""
