function hessian_buffers(net::Net{T}) where {T}
    if net.hessian_buffers === nothing
        columns = single_hidden_layer(net) ? net.n_params : maximum(n_params, net.layers)
        fan_in = maximum(l.fan_in for l in net.layers)
        net.hessian_buffers = HessianBuffers{T}(Matrix{T}(undef, first(net.blocks).n, columns),
                                                Matrix{T}(undef, columns, fan_in + 1))
    end
    return net.hessian_buffers::HessianBuffers{T}
end

"""
One hidden layer and one linear output: the Gauss–Newton part is a single symmetric rank-n update, and the rest
is one small block per unit (by loops, hence the bound on the number of features).
"""
single_hidden_layer(net::Net) =
    length(net.layers) == 2 && n_outputs(net) == 1 && last(net.layers).activation isa Identity && n_features(net) <= 16

"""
    hessian!(H, net, θ) -> H

Overwrite `H` (P×P) with ∇²L(θ): exact, symmetric to the last bit (one triangle is computed and mirrored).
"""
function hessian!(H::Matrix{T}, net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    size(H) == (net.n_params, net.n_params) ||
        throw(DimensionMismatch("H is $(size(H)), this net has $(net.n_params) parameters"))
    buffers = hessian_buffers(net)
    scale = one(T) / net.n_samples
    fill!(H, 0)
    for block in net.blocks
        heartbeat(net.monitor)
        second_order_pass!(net.workspace, net.layers, θ, block, scale)
        if single_hidden_layer(net)
            add_gauss_newton!(H, buffers, net, θ, block, scale)
            add_curvature!(H, buffers, net, block)
        else
            for l in eachindex(net.layers), j in 1:net.layers[l].width
                unit_tangent!(net.workspace, net.layers, θ, block, scale, l, j)
                for m in l:length(net.layers)
                    add_block!(H, buffers, net.workspace, net.layers, block, l, j, m)
                end
            end
        end
    end
    return mirror!(H)
end

"""
    hessian(net, θ) -> ∇²L(θ)
"""
hessian(net::AbstractNet, θ) = hessian!(similar(θ, length(θ), length(θ)), net, θ)

"Copy the lower triangle to the upper one, in tiles that fit into cache."
function mirror!(H)
    P, tile = size(H, 1), 32
    @inbounds for J in 1:tile:P, I in J:tile:P, j in J:min(J + tile - 1, P), i in max(I, j + 1):min(I + tile - 1, P)
        H[j, i] = H[i, j]
    end
    return H
end

# Any depth. Perturb the pre-activation of unit j in layer l by one, for every sample: Ḣ, Ȧ follow forwards and
# Δ̇ backwards as in a Hessian-vector product. As ∂h_l[j]/∂W_l[j, i] = a_{l-1}[i],
#     ∂²ℓ/∂W_m[p, q] ∂W_l[j, i] = (Δ̇_m[p] a_{m-1}[q] + Δ_m[p] Ȧ_{m-1}[q]) a_{l-1}[i],      m >= l,
# which summed over samples is a matrix product. Only pairs with m > l, or m = l and p >= j, are computed.

function unit_tangent!(ws::Workspace{T}, layers, θ, block::Block{T}, scale::T, l::Int, j::Int) where {T}
    n, L = block.n, length(layers)
    for m in l+1:L
        k = layers[m].width
        if m == l + 1
            @inbounds for p in 1:k
                w = θ[layers[m].offset+(p-1)*layers[m].fan_in+j]
                @lanes r n ws.Ḣ[m][r, p] = w * ws.D[l][r, j]
            end
        else
            linear_dot!(ws.Ḣ[m], ws.Ȧ[m-1], θ, layers[m], n)
        end
        hadamard!(ws.Ȧ[m], ws.D[m], ws.Ḣ[m], n, k)
    end
    if l == L
        Δ̇ = ws.Δ̇[L]
        fill!(Δ̇, 0)
        @inbounds @lanes r n Δ̇[r, j] = muladd(2scale * block.w[r], abs2(ws.D[L][r, j]), ws.S[L][r, j] * ws.E[L][r, j])
        return nothing
    end
    loss_dot!(ws.Δ̇[L], ws.Ȧ[L], block, scale, layers[L].width)
    for m in L:-1:l+1
        for p in 1:layers[m].width
            chain_dot!(ws.Δ̇[m], ws.D[m], ws.S[m], ws.E[m], ws.Ḣ[m], p, n)
        end
        pullback!(ws.Δ̇[m-1], ws.Δ̇[m], θ, layers[m], n)
    end
    Δ̇ = hadamard!(ws.Δ̇[l], ws.D[l], ws.Δ̇[l], n, layers[l].width)
    @inbounds @lanes r n Δ̇[r, j] = muladd(ws.S[l][r, j], ws.E[l][r, j], Δ̇[r, j])
    return nothing
end

function add_block!(H::Matrix{T}, buffers::HessianBuffers{T}, ws::Workspace{T}, layers, block::Block{T}, l::Int,
                    j::Int, m::Int) where {T}
    n, lower, upper = block.n, layers[l], layers[m]
    Z, product, Δ̇, Δ = buffers.Z, buffers.product, ws.Δ̇[m], ws.Δ[m]
    A = layer_input(ws, block, m)
    p0 = m == l ? j : 1
    weights = (upper.width - p0 + 1) * upper.fan_in
    @inbounds for p in p0:upper.width, q in 1:upper.fan_in
        c = (p - p0) * upper.fan_in + q
        if m == l || (m == l + 1 && q != j)
            @lanes r n Z[r, c] = Δ̇[r, p] * A[r, q]
        elseif m == l + 1
            @lanes r n Z[r, c] = muladd(Δ̇[r, p], A[r, q], Δ[r, p] * ws.D[l][r, j])
        else
            @lanes r n Z[r, c] = muladd(Δ̇[r, p], A[r, q], Δ[r, p] * ws.Ȧ[m-1][r, q])
        end
    end
    rows = weights
    if upper.bias
        @inbounds for p in p0:upper.width
            rows += 1
            @lanes r n Z[r, rows] = Δ̇[r, p]
        end
    end
    B = layer_input(ws, block, l)
    columns = lower.fan_in + lower.bias           # the last column of B holds ones
    gemm!('T', 'N', rows, columns, n, one(T), Z, 1, size(Z, 1), B, 1, size(B, 1), zero(T), product, 1, size(product, 1))
    w0 = upper.offset + (p0 - 1) * upper.fan_in
    b0 = bias_offset(upper) + p0 - 1
    @inbounds for i in 1:lower.fan_in
        col = lower.offset + (j - 1) * lower.fan_in + i
        for c in 1:weights
            H[w0+c, col] += product[c, i]
        end
        for c in weights+1:rows
            H[b0+c-weights, col] += product[c, i]
        end
    end
    lower.bias || return nothing
    col, i = bias_offset(lower) + j, lower.fan_in + 1
    @inbounds if m == l                            # weights come before biases: their place is the transposed one
        for c in upper.fan_in+1:weights            # those of unit j itself were added as a bias row
            H[col, w0+c] += product[c, i]
        end
    else
        for c in 1:weights
            H[w0+c, col] += product[c, i]
        end
    end
    @inbounds for c in weights+1:rows
        H[b0+c-weights, col] += product[c, i]
    end
    return nothing
end

# One hidden layer, one linear output: H = Σ (2w/N) J Jᵀ + Σ Δ ∂²f with J = ∂f/∂θ.

function add_gauss_newton!(H::Matrix{T}, buffers::HessianBuffers{T}, net::Net{T}, θ, block::Block{T}, scale::T) where {T}
    hidden, out = net.layers
    ws, Z, n, X = net.workspace, buffers.Z, block.n, block.X
    root, D, A, s = ws.Ḣ[2], ws.D[1], ws.A[1], ws.Ḣ[1]
    @inbounds @lanes r n root[r, 1] = sqrt(2scale * block.w[r])
    @inbounds for j in 1:hidden.width
        v = θ[out.offset+j]
        @lanes r n s[r, j] = v * root[r, 1] * D[r, j]
        for i in 1:hidden.fan_in
            c = (j - 1) * hidden.fan_in + i
            @lanes r n Z[r, c] = s[r, j] * X[r, i]
        end
        hidden.bias && @lanes r n Z[r, bias_offset(hidden)+j] = s[r, j]
        @lanes r n Z[r, out.offset+j] = root[r, 1] * A[r, j]
    end
    out.bias && @inbounds @lanes r n Z[r, bias_offset(out)+1] = root[r, 1]
    syrk!(net.n_params, n, one(T), Z, size(Z, 1), H, size(H, 1))
    return nothing
end

function add_curvature!(H::Matrix{T}, buffers::HessianBuffers{T}, net::Net{T}, block::Block{T}) where {T}
    hidden, out = net.layers
    ws, n, X, k = net.workspace, block.n, block.X, hidden.fan_in
    u, Z = ws.Ȧ[1], buffers.Z
    columns = k + hidden.bias
    @inbounds for j in 1:hidden.width
        @lanes r n u[r, j] = ws.Δ[2][r, 1] * ws.D[1][r, j]              # ∂²f/∂v_j ∂h_j
        row = out.offset + j
        for i in 1:k
            H[row, (j-1)*k+i] += column_dots(u, j, X, i, n)
        end
        hidden.bias && (H[row, bias_offset(hidden)+j] += column_sum(u, j, n))
        @lanes r n u[r, j] = ws.S[1][r, j] * ws.E[1][r, j]              # ∂²f/∂h_j²
        for i in 1:k
            @lanes r n Z[r, i] = u[r, j] * X[r, i]
        end
        for i in 1:k
            col = (j - 1) * k + i
            for q in i:k
                H[(j-1)*k+q, col] += column_dots(Z, i, X, q, n)
            end
            hidden.bias && (H[bias_offset(hidden)+j, col] += column_sum(Z, i, n))
        end
        hidden.bias && (H[bias_offset(hidden)+j, bias_offset(hidden)+j] += column_sum(u, j, n))
    end
    return nothing
end
