# The Hessian of a net with one hidden layer and one linear output,
#
#     H = Σ (2w/N) J Jᵀ + Σ Δ ∂²f,        J = ∂f/∂θ,  Δ = ∂L/∂f.
#
# The first part is a symmetric product over samples. In the second, ∂²f/∂v_j ∂h_j = f'_j and ∂²f/∂h_j² = v_j f''_j, so
# that it needs the sums of Δ f'_j and Δ v_j f''_j times the monomials of the inputs: two more such products.

"""
The rest of the Hessian needs one column for each product of two inputs, hence the bound on their number.
"""
single_hidden_layer(net::Net) =
    length(net.layers) == 2 && n_outputs(net) == 1 && net.objective isa MeanSquared &&
    last(net.layers).activation isa Identity && n_features(net) <= 16 && isempty(first(net.layers).chains)

"""
    SingleLayerBuffers(net)

For one block: `J`, √(2w/N) ∂f/∂θ, a column per parameter, and where samples are few `Z`, its transpose; `first` and `second`, Δ f'_j and Δ v_j f''_j, a column per hidden
unit j; `monomials`, x_i x_q for i ≤ q, x_0 = 1 the last factor. Over all blocks: `slopes` and `curvatures`, the sums of
`first` with inputs and one, and of `second` with the monomials.
"""
struct SingleLayerBuffers{T} <: HessianBuffers{T}
    J::Matrix{T}
    Z::Matrix{T}
    first::Matrix{T}
    second::Matrix{T}
    monomials::Matrix{T}
    slopes::Matrix{T}
    curvatures::Matrix{T}
end
function SingleLayerBuffers(net::Net{T}) where {T}
    n, k, d = first(net.blocks).n, first(net.layers).width, n_features(net) + 1
    monomials = div(d * (d + 1), 2)
    Z = n <= FEW && T <: BlasReal ? zeros(T, rows_for(net.n_params), n) : zeros(T, 0, 0)
    return SingleLayerBuffers{T}(zeros(T, n, columns_for(net.n_params)), Z, zeros(T, n, columns_for(k)),
                                 zeros(T, n, columns_for(k)), zeros(T, n, monomials), zeros(T, k, d),
                                 zeros(T, k, monomials))
end

"How many samples are few: 41 parameters on 10, 32 and 64 samples 0.9, 2.0 and 3.9 against 2.1, 2.8 and 4.1 µs."
const FEW = 48

"H += JᵀJ, its lower triangle, or H = JᵀJ where it is `fresh`."
function add_product!(H::Matrix{T}, buffers::SingleLayerBuffers{T}, block::Block{T}, fresh::Bool) where {T}
    if isempty(buffers.Z)
        fresh && fill!(H, 0)
        gram!(H, buffers.J, block.n)
    else
        m = something(findlast(!iszero, block.w), 0)        # what follows only fills the vectors
        transpose_into!(buffers.Z, buffers.J, m, size(H, 1))
        outer!(H, buffers.Z, m, fresh)
    end
    return nothing
end

function share_hessian!(H::Matrix{T}, buffers::SingleLayerBuffers{T}, share::Share{T}, net::Net{T}, θ::Vector{T}) where {T}
    ws, scale = share.workspace, one(T) / net.n_samples
    fill!(buffers.slopes, 0)
    fill!(buffers.curvatures, 0)
    for b in share.blocks
        beat(share, net)
        block = net.blocks[b]
        forward!(ws, net, θ, block, 2)
        block_loss!(net.objective, ws.E[2], ws, block, scale)
        hadamard!(ws.Δ[2], ws.D[2], ws.E[2], block.n, 1)
        fill_columns!(buffers, ws, net, θ, block, scale)
        add_product!(H, buffers, block, b == first(share.blocks))
        gram!(buffers.slopes, buffers.first, block.X, block.n)
        gram!(buffers.curvatures, buffers.second, buffers.monomials, block.n)
    end
    return scatter!(H, buffers, net)
end

function share_gauss_newton!(G::Matrix{T}, buffers::SingleLayerBuffers{T}, share::Share{T}, net::Net{T},
                             θ::Vector{T}) where {T}
    ws, scale = share.workspace, one(T) / net.n_samples
    for b in share.blocks
        beat(share, net)
        block = net.blocks[b]
        forward!(ws, net, θ, block, 2)
        fill_columns!(buffers, ws, net, θ, block, scale)
        add_product!(G, buffers, block, b == first(share.blocks))
    end
    return G
end

function fill_columns!(buffers::SingleLayerBuffers{T}, ws::Workspace{T}, net::Net{T}, θ, block::Block{T}, scale::T) where {T}
    hidden, out = net.layers
    n, X, d, root, monomials, factor = block.n, block.X, hidden.fan_in, ws.Ḣ[2], buffers.monomials, net.output_factor
    @inbounds @lanes r n root[r, 1] = factor * sqrt(2scale * block.w[r])
    for j in 1:hidden.width
        fill_unit!(buffers, ws, X, @inbounds(θ[out.offset+j]), j, hidden, out, n)
    end
    @inbounds out.bias && @lanes r n buffers.J[r, net.n_params] = root[r, 1]
    c = 0
    @inbounds for i in 1:d+1, q in i:d+1
        c += 1
        @lanes r n monomials[r, c] = X[r, i] * X[r, q]
    end
    return nothing
end

"What hidden unit `j` with output weight `v` contributes, in one pass over the samples: 50 units on 256 of them 17 instead of 27 µs."
function fill_unit!(buffers::SingleLayerBuffers{T}, ws::Workspace{T}, X::Matrix{T}, v::T, j::Int, hidden::Layer, out::Layer,
                    n::Int) where {T}
    J, first, second, V, rows = buffers.J, buffers.first, buffers.second, lanes(T), size(buffers.J, 1)
    A, D, S, Δ, root = ws.A[1], ws.D[1], ws.S[1], ws.Δ[2], ws.Ḣ[2]
    unit, d = (j - 1) * size(A, 1), hidden.fan_in
    weights, bias, output = (j - 1) * d * rows, (bias_offset(hidden) + j - 1) * rows, (out.offset + j - 1) * rows
    own, ld = (j - 1) * size(first, 1), size(X, 1)
    GC.@preserve J first second A D S Δ root X for r in 1:width(V):n
        a, slope, f, δ = load(V, root, r), load(V, D, unit + r), load(V, A, unit + r), load(V, Δ, r)
        store!(J, output + r, a * f)
        store!(first, own + r, δ * slope)
        store!(second, own + r, v * δ * load(V, S, unit + r))
        slope = v * a * slope
        for i in 0:d-1
            store!(J, weights + i * rows + r, slope * load(V, X, i * ld + r))
        end
        hidden.bias && store!(J, bias + r, slope)
    end
    return nothing
end

"The sums of `buffers` at their places in the lower triangle of `H`."
function scatter!(H::Matrix{T}, buffers::SingleLayerBuffers{T}, net::Net{T}) where {T}
    hidden, out = net.layers
    d, slopes, curvatures = hidden.fan_in, buffers.slopes, buffers.curvatures
    @inbounds for j in 1:hidden.width
        w0, b, c = (j - 1) * d, bias_offset(hidden) + j, 0
        for i in 1:d+hidden.bias
            column = i <= d ? w0 + i : b
            H[out.offset+j, column] += slopes[j, i]
        end
        for i in 1:d+1, q in i:d+1
            c += 1
            q > d && !hidden.bias && continue
            H[q <= d ? w0 + q : b, i <= d ? w0 + i : b] += curvatures[j, c]
        end
    end
    return H
end
