"""Pure view-models: colours, formatted numbers, escaped span HTML, Plotly figures. No Streamlit, SQL or torch."""
