"""Data, training, and what a trial does. Imports models; knows nothing of studies or stores."""
