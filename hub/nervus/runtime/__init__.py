"""What runs the system: state folder, identities, brokers, supervision of services."""
