"""The rooms of the sampler process: one source of figures each, a clock that drives them, and what pushes them."""
