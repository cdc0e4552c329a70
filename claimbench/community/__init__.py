"""What readers may do on the page once its owner allows it: subscribe, sign in by mail, vote, submit, curate."""
