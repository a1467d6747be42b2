"""``orthanc-bridge demo``: real images in every syntax through the bridge, each pixel checked."""
