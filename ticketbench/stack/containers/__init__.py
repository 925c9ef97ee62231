"""The system under test as containers, through the Docker SDK. Imported only where such a stack is wanted."""
