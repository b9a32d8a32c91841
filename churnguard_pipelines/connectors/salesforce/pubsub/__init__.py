"""Change events of Salesforce's Pub/Sub API: gRPC, and Avro within. Imported only where an integration follows them."""
