"""ari-proxy: the package, its twistd plugin and its console command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="ari-proxy",
    version=re.search(
        r'__version__ = "(.+)"', (HERE / "ariproxy/__init__.py").read_text()
    )[1],
    description="Connects Asterisk's REST interface (ARI) to Apache Kafka",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="AGPL-3.0-or-later",
    python_requires=">=3.11",
    # twisted/plugins is a namespace folder: it must hold no __init__.py, or it
    # would hide the plugins of everything else.
    packages=[*find_packages(include=["ariproxy", "ariproxy.*"]), "twisted.plugins"],
    package_data={"ariproxy": ["py.typed"]},
    install_requires=[
        "autobahn>=23.6",
        "confluent-kafka>=2.4",
        # txredisapi finds it by itself and then reads several times faster.
        "hiredis>=3",
        "msgspec>=0.19",
        "prometheus-client>=0.16",
        "rich>=13",
        "service-identity>=23.1",
        "treq>=23.11",
        "twisted[tls]>=23.10",
        "txredisapi>=1.6",
        "zope.interface>=6",
    ],
    extras_require={
        "cassandra": ["cassandra-driver>=3.30"],
        # pykafka imports pkg_resources, which later setuptools no longer have.
        "pykafka": ["pykafka>=2.8", "setuptools<82"],
        "test": [
            "cassandra-driver>=3.30",
            "hypothesis>=6.100",
            "pykafka>=2.8",
            "setuptools<82",
        ],
        "lint": ["mypy", "mypy-zope", "ruff"],
    },
    entry_points={"console_scripts": ["ari-proxy = ariproxy.cli:main"]},
    classifiers=[
        "Framework :: Twisted",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Communications :: Telephony",
    ],
)
