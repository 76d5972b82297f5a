"""One page of HTML to look into models with."""
