"""Vision transformers with exchangeable normalisation: nn.Modules and what is done to them."""
