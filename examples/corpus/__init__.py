"""What make_documents.py needs: subjects to write about, prose, and writers for each format."""
