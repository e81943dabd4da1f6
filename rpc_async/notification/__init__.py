"""How somebody is told: the kinds of target, and the one function that delivers to them."""
