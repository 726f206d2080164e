"""unteach: make a language model stop, from negative examples alone."""
