"""All wording as data, the chat template of a model, and what a model file carries for its runs."""
