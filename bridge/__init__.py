"""orthanc-bridge: moves every instance from one Orthanc to another, uncompressed, with proof."""

__version__ = "0.1.0"
