"""`churnguard demo`: the whole product on a simulated business."""
