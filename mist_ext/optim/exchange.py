class SparseExchange:
    def __init__(self, optimizer, wire=None):
        raise NotImplementedError
