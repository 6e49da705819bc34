"""The viewer: a trained run in a browser, drawn here, to look at and to edit."""
