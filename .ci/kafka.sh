#!/usr/bin/env bash
# Apache Kafka into a folder: .ci/kafka.sh FOLDER
#
# A broker is its jars and a Java machine; Maven knows where to get them, and what else they need.
set -euo pipefail
folder=$(realpath -m "$1")
draft=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$draft"' EXIT

dependency() { echo "<dependency><groupId>$1</groupId><artifactId>$2</artifactId><version>$3</version></dependency>"; }
cat > "$draft/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>churnguard</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    $(dependency org.apache.kafka kafka_2.13 4.3.0)
    $(dependency org.apache.kafka kafka-tools 4.3.0)
    $(dependency org.slf4j slf4j-simple 1.7.36)
  </dependencies>
</project>
POM
mvn --quiet --batch-mode -Dstyle.color=never --file "$draft/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
  -DincludeScope=runtime -DoutputDirectory="$draft/jars"
mv -T "$draft/jars" "$folder"
