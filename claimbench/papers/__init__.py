"""The built-in shelf: one folder a paper, in folders by group."""
