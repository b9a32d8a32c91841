"""A simulated Salesforce: OAuth, REST, Bulk API 2.0 over the CRM of a simulated business."""
