"""The pages: server templates, small ES modules, one style sheet."""
