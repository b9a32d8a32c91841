"""HubSpot as its CRM API shows it: one portal per simulated business."""
