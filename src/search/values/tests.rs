//! Values of whole resources.
