FROM debian:bootstrapped
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY apt/ /etc/apt/apt.conf.d/
# As the official image has it: packages that were installed, and apt's indexes of them, are not kept.
RUN echo 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; }; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";' \
    > /etc/apt/apt.conf.d/docker-clean
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
