"""The control plane's side of the fleet: who may join, certificates, and the client of one agent."""
