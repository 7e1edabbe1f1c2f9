"""The recurrent network. Import its modules by name: this file stays free of torch."""
