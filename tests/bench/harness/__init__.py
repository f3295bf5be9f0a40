"""The parts of the data-plane benchmark; `../run` puts them together."""
