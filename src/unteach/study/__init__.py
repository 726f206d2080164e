"""A study: every arm with every seed as a run of its own, and one comparison of all arms."""
