"""Forms that a reply can have: JSON of a schema, a grammar of the user's, calls of tools; and the grammars for them."""
