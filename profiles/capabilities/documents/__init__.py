"""What the document capabilities do, inside the sandbox: standard library, and what python-docs holds."""
