"""The commands of an installation that is deployed process by process: `churnguard migrate`, and one for each role."""
