"""unteach try: a page on this machine where a person reads replies and marks bad ones."""
