"""A simulated Pub/Sub API: change events of the CRM over gRPC, as Salesforce's `pubsub_api.proto` has it."""
