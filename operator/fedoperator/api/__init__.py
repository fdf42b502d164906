"""What users write and read: the resources as frozen types, also their schema and text."""

GROUP = "fedtrain.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
