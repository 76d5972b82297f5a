"""A folder with a page that runs a model in the browser."""
