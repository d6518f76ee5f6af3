"""The configuration: ``service.conf`` (HOCON) to frozen structs.

``keys`` tells every key once; ``reference`` lists them; ``load`` reads a file.
"""

from ariproxy.config.keys import Config
from ariproxy.config.load import load
from ariproxy.config.reference import Key, keys, spelled
from ariproxy.config.values import Properties, Secret

__all__ = ["Config", "Key", "Properties", "Secret", "keys", "load", "spelled"]
