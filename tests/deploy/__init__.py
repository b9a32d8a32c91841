"""The image, compose and the Helm chart, by `make test-deploy`."""
