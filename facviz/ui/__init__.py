"""The dashboard's Streamlit side: frame, state, shared resources, small components; `views` says what pages show."""
