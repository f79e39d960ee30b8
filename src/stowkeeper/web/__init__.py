"""HTTP: the native API, the routes in the shape of those of Orthanc, and the web form of storage commitment."""
