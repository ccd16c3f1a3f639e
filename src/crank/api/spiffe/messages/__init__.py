"""Messages of both services. The .proto files are the source; `make proto` writes the modules beside them."""
